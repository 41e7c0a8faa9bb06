"""Values, seams and the loop: the whole product in one sitting. Standard library only."""
