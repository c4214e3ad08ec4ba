"""Image files: decoding, DICOM, finding, caching, heat maps."""
