"""Words of the report and what they mean: how its numbers are made."""

from __future__ import annotations

TRAINING_TERMS = (
    (
        "Arm",
        "Runs that differ in nothing but the training seed. Two arms are compared over the seeds that both "
        "have, on the same validation samples, noise levels and noise draws.",
    ),
    (
        "Validation error",
        "The training objective’s error on held-out samples at fixed noise levels, averaged over levels and "
        "draws with equal weight. The estimand is always a ratio of means, never a mean of ratios.",
    ),
    (
        "Intervals of runs",
        "95 %, for the logarithm of the ratio, linearised, with training seeds and samples as crossed random "
        "effects (Student’s t with Satterthwaite’s degrees of freedom). With one training seed they are over "
        "samples alone and hold for that seed only.",
    ),
    (
        "Steps to an error",
        "Where the mean validation curve first falls to the other arm’s final error, linear between "
        "evaluations, over the steps that the other arm took itself to fall to it. Several seeds: geometric "
        "mean, Student’s t over seeds. One seed: percentile bootstrap over validation samples; with fewer "
        "than five samples there is no interval.",
    ),
    (
        "Spectra",
        "Band energies of the final latents, summed over channels, averaged over pictures; the log ratio of "
        "means, generated over the held-out pictures of the same captions. The spectral distance is the mean "
        "of its absolute value over bands, with an interval from the same linearisation; it does not see "
        "where in a picture the energy lies.",
    ),
)
EVALUATION_TERMS = (
    (
        "Evaluation",
        "All models generate for the same prompts and seeds from the same noise; every comparison is paired.",
    ),
    (
        "Intervals of an evaluation",
        "95 %, over prompts, then seeds within prompts, or over held-out pictures; what each measure "
        "estimates, how its interval is made and what it was measured with is in the table of measures.",
    ),
    (
        "What would have shown",
        "The smallest true difference that so many prompts show with 80 % power at the corrected level. No "
        "difference found does not mean that there is none. Where hardly any could have shown, not even one of half "
        "the largest value (or of half the scale) would have; where none could, none of any size that matters.",
    ),
    (
        "Drift",
        "Distance of a picture from the base model’s of the same prompt and seed, for prompts that have "
        "nothing to do with the training.",
    ),
)
HOLM = (
    "Holm’s correction",
    "Many comparisons find differences by chance. p values are corrected for all the cells that a table "
    "or a group of figures shows, and the words claim only what is left. Intervals themselves are each at "
    "95 %.",
)
