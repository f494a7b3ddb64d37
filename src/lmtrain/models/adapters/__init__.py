"""Low-rank adapters: made, read, and in the shapes of PEFT and loralib."""
