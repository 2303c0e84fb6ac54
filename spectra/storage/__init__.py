"""Where cubes live and how they are written; `spectra.cube` is the entrance."""
