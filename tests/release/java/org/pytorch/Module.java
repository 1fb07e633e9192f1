package org.pytorch;

/** Answers with its input. */
public final class Module {
  public static String path;

  Module(String path) {
    Module.path = path;
  }

  public IValue forward(IValue... inputs) {
    return inputs[0];
  }
}
