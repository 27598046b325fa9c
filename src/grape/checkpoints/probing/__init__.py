"""The verb ``probe``: sampling of decisions, their likelihoods under each convention, and the verdict."""
