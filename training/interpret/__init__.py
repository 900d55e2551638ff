"""What decoders read from where: voxels and regions, channels, and moments."""
