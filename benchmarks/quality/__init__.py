"""The experiment: does routing by band energies help, when every method is tuned and has the same parameters?"""
