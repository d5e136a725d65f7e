// The page of the API: Swagger UI over our own description of it.

const place = document.getElementById("operations");

window.SwaggerUIBundle({
  domNode: place,
  url: place.dataset.openapi,
  deepLinking: true,
  validatorUrl: "none", // else it shows the description to a server of its makers
});
