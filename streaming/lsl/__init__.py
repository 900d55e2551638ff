"""The Lab Streaming Layer: whatever touches pylsl is here, and nothing else of md-stream does."""
