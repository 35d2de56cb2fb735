"""Getting a RabbitMQ to work with: ``python -m broker up``, and private nodes for tests that must kill one."""
