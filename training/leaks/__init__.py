"""Leaks that public code has had, each run on purpose: one file and one line here add another.

A leak's module has `SOURCE`, who had it; `WHAT`, what happens; ``check(data, settings)``, which refuses data and
decoders that it does not apply to; and ``forms(given)``, the leaky and the clean :class:`~.base.Form`.
"""

LEAKS = {
    "other-subject": ".other_subject",
    "test-epoch": ".epoch_by_test",
    "repetitions": ".repetitions",
    "whitening": ".whitening",
    "test-zscore": ".zscore_by_test",
    "stale-features": ".stale_features",
    "block-design": ".block_design",
    "neighbours": ".neighbours",
}
