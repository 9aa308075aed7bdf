"""What is generated for those who operate Polyroute: dashboards, and the page of metrics."""
