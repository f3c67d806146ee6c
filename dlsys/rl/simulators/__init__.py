"""What agents are hired for, simulated: environments that tell how their baselines would have done."""
