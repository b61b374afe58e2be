"""Long campaigns of damage, faults and limits. They print what they counted, and nothing may be lost silently."""
