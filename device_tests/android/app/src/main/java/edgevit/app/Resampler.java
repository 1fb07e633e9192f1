package edgevit.app;

/**
 * Pillow's resampling of 8-bit images (src/libImaging/Resample.c), bit for bit.
 *
 * <p>Android's own scaling reads four pixels whatever the reduction; what models were trained and
 * evaluated with averages over all of them. Coefficients have {@value #BITS} fractional bits; the
 * first pass rounds to 8 bits before the second.
 */
final class Resampler {
  private static final int BITS = 32 - 8 - 2;

  /** Pillow's filters that this app has. */
  enum Filter {
    BILINEAR(1.0) {
      @Override
      double at(double x) {
        x = Math.abs(x);
        return x < 1.0 ? 1.0 - x : 0.0;
      }
    },
    BICUBIC(2.0) {
      @Override
      double at(double x) {
        final double a = -0.5;
        x = Math.abs(x);
        if (x < 1.0) return ((a + 2.0) * x - (a + 3.0)) * x * x + 1;
        if (x < 2.0) return (((x - 5) * x + 8) * x - 4) * a;
        return 0.0;
      }
    };

    final double support;

    Filter(double support) {
      this.support = support;
    }

    abstract double at(double x);

    /** The filter of Pillow's name; null where this app lacks it. */
    static Filter named(String name) {
      for (Filter filter : values()) {
        if (filter.name().toLowerCase(java.util.Locale.ROOT).equals(name)) return filter;
      }
      return null;
    }
  }

  /** Where an image's rows come from: 0xAARRGGBB, as Bitmap.getPixels gives them. */
  interface Rows {
    void read(int y, int[] row);
  }

  private Resampler() {}

  /** Resize an image of width x height; returns 0xFFRRGGBB [outHeight * outWidth]. */
  static int[] resize(Rows rows, int width, int height, int outWidth, int outHeight, Filter filter) {
    Weights across = width == outWidth ? null : new Weights(width, outWidth, filter);
    Weights down = height == outHeight ? null : new Weights(height, outHeight, filter);
    int[] out =
        downFirst(width, height, outWidth, outHeight)
            ? across(down(whole(rows, width, height), width, down), width, outHeight, across)
            : down(across(rows, width, height, across), outWidth, down);
    for (int i = 0; i < out.length; i++) out[i] |= 0xFF000000;
    return out;
  }

  /** Pillow 13 and later begin with the direction that saves more; earlier ones never do. */
  private static boolean downFirst(int width, int height, int outWidth, int outHeight) {
    return height > outHeight && height - outHeight > 2L * (width - outWidth);
  }

  private static int[] whole(Rows rows, int width, int height) {
    return across(rows, width, height, null);
  }

  private static int[] across(int[] pixels, int width, int height, Weights weights) {
    return across(
        (y, row) -> System.arraycopy(pixels, y * width, row, 0, width), width, height, weights);
  }

  /** The horizontal pass, row by row: a camera's whole picture would not fit old heaps. */
  private static int[] across(Rows rows, int width, int height, Weights weights) {
    int outWidth = weights == null ? width : weights.first.length;
    int[] out = new int[outWidth * height];
    int[] row = new int[width];
    for (int y = 0; y < height; y++) {
      rows.read(y, row);
      if (weights == null) System.arraycopy(row, 0, out, y * width, width);
      else weights.apply(row, 0, 1, out, y * outWidth, 1);
    }
    return out;
  }

  private static int[] down(int[] pixels, int width, Weights weights) {
    if (weights == null) return pixels;
    int[] out = new int[width * weights.first.length];
    for (int x = 0; x < width; x++) weights.apply(pixels, x, width, out, x, width);
    return out;
  }

  /** Which input pixels make an output pixel, and how much each counts. */
  private static final class Weights {
    private final int[] first; // input pixel, for each output pixel
    private final int[][] weight; // fixed point

    Weights(int in, int out, Filter filter) {
      first = new int[out];
      weight = new int[out][];
      double scale = (double) in / out;
      double stretch = Math.max(scale, 1.0);
      double support = filter.support * stretch;
      double inverse = 1.0 / stretch;
      for (int i = 0; i < out; i++) {
        double centre = (i + 0.5) * scale;
        int low = Math.max((int) (centre - support + 0.5), 0);
        int high = Math.min((int) (centre + support + 0.5), in);
        double[] exact = new double[high - low];
        double sum = 0.0;
        for (int k = 0; k < exact.length; k++) {
          exact[k] = filter.at((k + low - centre + 0.5) * inverse);
          sum += exact[k];
        }
        first[i] = low;
        weight[i] = new int[exact.length];
        for (int k = 0; k < exact.length; k++) {
          double part = (sum != 0.0 ? exact[k] / sum : exact[k]) * (1 << BITS);
          weight[i][k] = (int) (part < 0 ? part - 0.5 : part + 0.5);
        }
      }
    }

    void apply(int[] from, int fromStart, int fromStep, int[] to, int toStart, int toStep) {
      for (int i = 0; i < first.length; i++) {
        int red = 1 << (BITS - 1);
        int green = red;
        int blue = red;
        int at = fromStart + first[i] * fromStep;
        for (int part : weight[i]) {
          int pixel = from[at];
          red += (pixel >> 16 & 0xFF) * part;
          green += (pixel >> 8 & 0xFF) * part;
          blue += (pixel & 0xFF) * part;
          at += fromStep;
        }
        to[toStart + i * toStep] = clip(red) << 16 | clip(green) << 8 | clip(blue);
      }
    }

    private static int clip(int fixed) {
      return Math.max(0, Math.min(fixed >> BITS, 255));
    }
  }
}
