"""What users hold in their hands: App, Blueprint, tasks, and the managers."""
