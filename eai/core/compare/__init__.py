"""Afterwards: records of runs → keys that tell them apart → table (pandas) → show (leaderboard, summary) and figure."""
