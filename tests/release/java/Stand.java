import android.graphics.Bitmap;
import java.io.DataInputStream;
import java.io.DataOutputStream;
import java.io.File;
import org.pytorch.Module;

/** Hands pixels to the card's class, and back what it hands to PyTorch. */
final class Stand {
  public static void main(String[] arguments) throws Exception {
    DataInputStream in = new DataInputStream(System.in);
    int height = in.readInt();
    int width = in.readInt();
    int[] pixels = new int[height * width];
    for (int i = 0; i < pixels.length; i++) pixels[i] = in.readInt();
    float[] seen = new Classifier(new File("folder")).logits(new Bitmap(pixels, width, height));
    DataOutputStream out = new DataOutputStream(System.out);
    out.writeUTF(Module.path);
    for (float value : seen) out.writeFloat(value);
    out.flush();
  }
}
