"""Making a trained student smaller before it leaves torch: folding its norms."""
