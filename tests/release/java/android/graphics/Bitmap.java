package android.graphics;

/** ARGB pixels. */
public final class Bitmap {
  private final int[] pixels;
  private final int width;
  private final int height;

  public Bitmap(int[] pixels, int width, int height) {
    this.pixels = pixels;
    this.width = width;
    this.height = height;
  }

  public void getPixels(int[] out, int offset, int stride, int x, int y, int w, int h) {
    if (offset != 0 || stride != width || x != 0 || y != 0 || w != width || h != height)
      throw new IllegalArgumentException("not the whole bitmap, row by row");
    System.arraycopy(pixels, 0, out, 0, pixels.length);
  }
}
