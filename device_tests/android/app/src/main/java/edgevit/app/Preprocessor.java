package edgevit.app;

import android.graphics.Bitmap;

/**
 * From an image to the model's input, as the contract asks and timm's evaluation transform does it
 * on the desktop: Pillow's resampling, torchvision's crop and normalisation.
 */
final class Preprocessor {
  private Preprocessor() {}

  /** The model's input, [3 * height * width]: planes in the contract's order. */
  static float[] apply(Bitmap image, Contract contract) {
    int width = image.getWidth();
    int height = image.getHeight();
    int outWidth = contract.resize;
    int outHeight = contract.resize;
    if (!contract.squash) { // torchvision's Resize(int)
      int shorter = Math.min(width, height);
      int longer = (int) ((double) ((long) contract.resize * Math.max(width, height)) / shorter);
      if (width <= height) outHeight = longer;
      else outWidth = longer;
    }
    int[] pixels =
        Resampler.resize(
            (y, row) -> image.getPixels(row, 0, width, 0, y, width, 1),
            width,
            height,
            outWidth,
            outHeight,
            contract.filter);
    return normalize(crop(pixels, outWidth, outHeight, contract), contract);
  }

  /** torchvision's CenterCrop: black where the image is smaller, halves rounded to even. */
  private static int[] crop(int[] pixels, int width, int height, Contract contract) {
    int left = offset(width, contract.width);
    int top = offset(height, contract.height);
    int[] out = new int[contract.width * contract.height];
    for (int y = 0; y < contract.height; y++) {
      for (int x = 0; x < contract.width; x++) {
        int fromX = x + left;
        int fromY = y + top;
        boolean inside = fromX >= 0 && fromX < width && fromY >= 0 && fromY < height;
        out[y * contract.width + x] = inside ? pixels[fromY * width + fromX] : 0;
      }
    }
    return out;
  }

  private static int offset(int have, int want) {
    return have < want ? -((want - have) / 2) : (int) Math.rint((have - want) / 2.0);
  }

  private static float[] normalize(int[] pixels, Contract contract) {
    float[] out = new float[3 * pixels.length];
    for (int plane = 0; plane < 3; plane++) {
      int colour = contract.bgr ? 2 - plane : plane;
      float[] table = new float[256];
      for (int v = 0; v < 256; v++) {
        table[v] = (v / 255f - contract.mean[colour]) / contract.std[colour];
      }
      int shift = 16 - 8 * colour;
      for (int i = 0; i < pixels.length; i++) {
        out[plane * pixels.length + i] = table[pixels[i] >> shift & 0xFF];
      }
    }
    return out;
  }
}
