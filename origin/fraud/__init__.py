"""The fraud simulator: attackers and honest viewers in one seeded world, judged by the real rules."""
