"""Speed of stt_s25 beside its peers."""
