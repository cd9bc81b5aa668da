"""The steps from decoded frames to a dataset folder; each makes one artefact from arrays."""
