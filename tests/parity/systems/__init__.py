"""How the recorded arrays of each official class are made with our parts."""
