"""From a clip of one person to the dataset an avatar is trained on."""
