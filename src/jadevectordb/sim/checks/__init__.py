"""What a history must satisfy, one property a module. All of it is pure: the same history gives the same judgement."""
