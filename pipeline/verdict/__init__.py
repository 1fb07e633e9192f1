"""Every criterion of the gate, and the decision they lead to."""
