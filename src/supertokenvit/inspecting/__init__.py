"""Reports on images themselves: near-duplicates, nearest others, and labels that are likely wrong."""
