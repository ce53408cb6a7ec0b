"""Making a trained student smaller before it leaves torch: folding its norms, cutting what it needs least, choosing its size."""
