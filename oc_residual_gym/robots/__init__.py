"""The Franka Research 3 with its hand: numbers, kinematics and MuJoCo model."""
