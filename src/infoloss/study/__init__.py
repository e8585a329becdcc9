"""Study: the honest comparison of losses. Plan, store, engines, tuning, inference, report."""
