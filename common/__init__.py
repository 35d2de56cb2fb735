"""What every example shares: settings, connecting, publishing, consuming, printing. It imports no example."""
