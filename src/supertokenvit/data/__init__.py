"""Labelled images: found, decoded, split, augmented and loaded.

Module          What it does
decode          Turns the bytes of an image file into pixels.
sources         Defines a source of labelled images by index.
listing         Finds image files in folders.
readers         Reads single files out of folders and archives.
formats         Makes sources of folders, archives, tables of labels and WebDataset shards.
libraries       Makes sources of data sets from Hugging Face, torchvision and scikit-learn.
splits          Opens a data set and cuts it into train, val and test.
augmentation    Changes training images at random.
loading         Makes batches.
checking        Names what is wrong with a data set.

Imports run up this table only.
"""
