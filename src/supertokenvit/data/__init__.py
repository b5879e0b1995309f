"""Labelled images: found, decoded, split, augmented and loaded.

Module          What it does
decode          Turns the bytes of an image file into pixels.
sources         Defines a source of labelled images by index.
listing         Finds image files in folders.
layout          Finds splits and classes in the paths of files.
readers         Reads single files out of folders and archives.
archives        Lists the files in archives.
tables          Makes sources of tables of labels.
masks           Makes sources of images with masks.
boxes           Makes sources of images with boxes.
pascal_voc      Reads boxes of Pascal VOC.
coco            Reads boxes of COCO.
formats         Makes sources of folders and archives.
shards          Makes sources of WebDataset shards.
libraries       Makes sources of data sets from Hugging Face, torchvision and scikit-learn.
cuts            Cuts a validation split off the training images.
splits          Opens a data set and cuts it into train, val and test.
augmentation    Changes training images at random.
box_geometry    Moves images and their boxes together.
loading         Makes batches.
joint           Changes images together with what is marked on them.
box_checking    Names what is wrong with boxes.
checking        Names what is wrong with a data set.

Imports run up this table only.
"""
