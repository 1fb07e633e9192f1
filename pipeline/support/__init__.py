"""What the stages share: files, images, models, machines. No stage is imported from here."""
