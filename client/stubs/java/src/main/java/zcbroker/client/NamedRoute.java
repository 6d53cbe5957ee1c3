package zcbroker.client;

import java.nio.file.Path;

/**
 * Where the way to one version of a service stands in the file system.
 *
 * @param socket the broker's public name, which leads to the service whether it runs or not
 * @param info the route info: where the backend itself listens while it runs
 */
public record NamedRoute(Path socket, Path info) {}
