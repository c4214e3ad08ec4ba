"""Bootstrap, calibration, blending, thresholds, workload."""
