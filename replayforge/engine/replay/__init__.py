"""Running events again: one, a workflow, or a bulk replay as a job."""
