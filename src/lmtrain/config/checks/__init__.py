"""Options that contradict each other, or leave something out that a command needs."""
