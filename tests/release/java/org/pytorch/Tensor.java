package org.pytorch;

public final class Tensor {
  private final float[] data;

  private Tensor(float[] data) {
    this.data = data;
  }

  public static Tensor fromBlob(float[] data, long[] shape) {
    long size = 1;
    for (long side : shape) size *= side;
    if (size != data.length) throw new IllegalArgumentException("the shape is not the data's");
    return new Tensor(data);
  }

  public float[] getDataAsFloatArray() {
    return data;
  }
}
