package org.pytorch;

public final class LiteModuleLoader {
  public static Module load(String path) {
    return new Module(path);
  }
}
