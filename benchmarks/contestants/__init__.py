"""Who is compared: each trains the case that it is given, and tells its pace after each step."""
