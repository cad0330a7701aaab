"""Tables, plots and the page of a study; reads the files that runs leave behind, never a model."""
