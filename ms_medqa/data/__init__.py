"""From raw records to MindRecord and back: readers, cleaning, split, prompts, tokens, packing."""
