"""What every stage shares: errors, files, random streams, the run log. Imports nothing of ours."""
