"""How a call of a pipeline is listened to, held back and measured; `spectra.record` is the entrance."""
