"""How the embedded editor and judge were made: VAE, editor, judge, each trained from a seed on the CPU."""
