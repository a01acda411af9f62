"""The services of the Modelyard suite, one package each."""
