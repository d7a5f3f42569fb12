"""What each worker role does with a batch: decode, call the pure code, deliver. No Faust here."""
