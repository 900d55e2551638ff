"""MindDiffuser: pictures reconstructed from brain activity, in two stages."""
