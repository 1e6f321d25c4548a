"""The base class of the models, and the transaction of a request."""
